"""Files of rows in, and the same rows with their vectors out: `emberd embed-files`."""
