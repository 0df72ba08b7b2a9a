"""Where images come from: every source yields whole-number pixels, kept in memory."""
