"""Looking at a finished result: a page in the browser that reads what is seen of it, or napari."""
