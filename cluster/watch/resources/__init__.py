"""Projects and watches disk and memory, and acts before they run out."""
