"""Files of any format and file system: found, read in pieces, published together."""
