"""From the hospital's image archive (PACS) to its own store: what ``concors-client fetch`` does."""
