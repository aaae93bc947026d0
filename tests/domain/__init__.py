"""The pure core, by table and by property."""
