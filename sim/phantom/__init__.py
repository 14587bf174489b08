"""A beating heart in a torso, and how magnetic resonance sees it."""
