"""What a model's folder says about it, and which space an entry gives with that folder."""
