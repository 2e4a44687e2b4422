"""Tasks of one's own on which policies are compared, of other kinds than in the reported cells."""
