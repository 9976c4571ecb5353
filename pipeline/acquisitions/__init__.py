"""New acquisitions in a folder: when they are finished, and that each is segmented once. Knows nothing of Prefect."""
