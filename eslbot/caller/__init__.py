"""Who is calling: the INVITE's display name and headers, and the signed identity made of them."""
