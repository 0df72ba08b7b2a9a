"""Where images come from: every source yields whole-number pixels, in memory or as needed."""
