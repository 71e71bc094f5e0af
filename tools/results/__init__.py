"""Results as JSON files, and the page that is generated from them."""
