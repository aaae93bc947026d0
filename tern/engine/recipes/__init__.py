"""How each kind of statement is executed so that the application hardly notices: lists of steps, no I/O."""
