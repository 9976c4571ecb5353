"""The report of a result: one page of pictures, plots and the audit, which needs nothing but a browser."""
