"""A small site for real servers: it saves orders, and tells ``crm`` of them."""
