"""What is asked of a client's address before only its keyed hash is left: proxies, networks, the secret."""
