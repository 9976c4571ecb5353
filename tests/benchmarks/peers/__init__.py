"""seamfree against the network alone, the machine's limit, and the programs that people use instead."""
