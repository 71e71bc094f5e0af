"""The report of a run: plain data in, one offline HTML page out; `gather` collects the data."""
