"""How requests are counted: a tenant's settings, lists of user agents, and the document for auditors."""
