"""The kernel driver: namespaces, bridges, VXLAN devices and nftables match the plan.

Modules:
    channel: a netlink socket
    conntrack: forgetting tracked connections
    driver: the driver itself
    ingress_rules: the node's firewall tables as text
    inventory: what the kernel lists, as values
    listeners: which ports processes listen on
    names: names and numbers by which we know what is ours
    netlink: netlink messages and attributes
    netns: making, pinning and entering network namespaces
    networks: operations on networks
    nft: round-robin balancing as nftables text
    nftables: running nftables commands
    node: operations on the node itself
    observe: the kernel's state, read back
    owed: connections still to be forgotten
    perform: operations to the modules that perform them
    preflight: what this machine lacks
    resolver: the way to a sandbox's resolver
    rtnetlink: requests about links, addresses, routes, rules and neighbours
    rule_writer: writing firewall tables
    sandboxes: operations on sandboxes
    uplink: the addresses of the machine's own devices, and what fits them
    vip_rules: a sandbox's firewall table as text
"""
