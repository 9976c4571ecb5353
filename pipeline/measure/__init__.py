"""What objects measure: exact sums over cores, merged by label, and turned into the columns of a table."""
