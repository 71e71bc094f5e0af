"""What a run is told: sections, where their values come from, flags."""
