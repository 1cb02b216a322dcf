"""Loading files into schema ``raw``: ``load`` (one file), ``landing`` (folders), ``datasets`` (the contract)."""
