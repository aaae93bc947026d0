"""ControlService and the public contract, called as any client calls them."""
