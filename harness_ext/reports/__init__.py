"""What people read: the table at the end of a run and the Markdown score card."""
