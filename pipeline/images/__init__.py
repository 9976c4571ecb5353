"""Reading regions of images, whatever their format, and what is known of whole images."""
