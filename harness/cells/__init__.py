"""One cell of the grid, from dataset to returns; it tells events and knows neither MLflow nor the terminal."""
