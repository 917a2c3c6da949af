"""What the grid decides: pure, deterministic cores and rules. Nothing here touches the world."""
