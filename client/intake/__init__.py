"""From a DICOM tree to short-axis stacks: read, sort, assemble, decode."""
