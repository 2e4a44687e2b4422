"""What a release needs: its licences, and a check of its wheel."""
