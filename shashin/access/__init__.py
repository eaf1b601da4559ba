"""Who may call: API keys, the file that has their hashes, and how often each key may be used."""
