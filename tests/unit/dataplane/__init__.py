"""Plans, operations, rule texts and netlink bytes; the memory driver."""
