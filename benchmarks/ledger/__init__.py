"""What the ledger's search and charts take with very many calls, and what the writer takes for a call."""
