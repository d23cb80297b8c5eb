"""The kernel driver: namespaces, bridges, VXLAN devices and nftables match the plan.

Modules:
    netns: making, pinning and entering network namespaces
"""
