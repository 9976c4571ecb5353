"""The Prefect flows of seamfree: the only place that knows Prefect."""
