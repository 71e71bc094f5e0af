"""The report of a run: `gather` collects plain data, and `page` renders it as one offline HTML page."""
