"""What is true about schema operations, without any input or output: standard library only."""
