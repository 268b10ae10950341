"""Images in training: kept copies, embeddings by key, drawn defects."""
