"""What each kind of component must do, one file a kind. Shapes, units and errors stand in the docstrings."""
