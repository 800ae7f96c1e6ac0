"""What another model, or a re-ranker, would change on the user's own texts, measured."""
