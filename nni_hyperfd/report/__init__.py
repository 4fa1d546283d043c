"""Reports for people: one offline HTML page for a task (`task`), and one for a state (`state`)."""
