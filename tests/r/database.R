# What the readers share: one connection, and a table on standard output that loses no digit.

suppressPackageStartupMessages({
  library(DBI)
  library(RSQLite)
})

arguments <- commandArgs(trailingOnly = TRUE)

read_table <- function(statement, ...) {
  connection <- dbConnect(SQLite(), arguments[[1]])
  on.exit(dbDisconnect(connection))
  values <- list(...)
  if (length(values)) dbGetQuery(connection, statement, params = values) else dbGetQuery(connection, statement)
}

write_table <- function(rows) {
  is_number <- vapply(rows, is.double, logical(1))
  rows[is_number] <- lapply(rows[is_number], function(column) {
    ifelse(is.na(column), NA, formatC(column, digits = 12, format = "g"))
  })
  write.csv(rows, row.names = FALSE, na = "")
}

# Every result of one experiment, in the order in which it was asked for.
read_results <- function(experiment_id) {
  read_table(
    "SELECT incident_id, narrative_type, row_num, manual_flag_ind, manual_flag, detected, confidence, indicators,
            rationale, response_sec, processed_at, error_occurred, error_message, prompt_tokens, completion_tokens,
            tokens_used, is_true_positive, is_true_negative, is_false_positive, is_false_negative
     FROM narrative_results WHERE experiment_id = ? ORDER BY incident_id, narrative_type, result_id",
    experiment_id
  )
}

# The numbers that a paper would report of these results.
measure <- function(results) {
  answered <- results[results$error_occurred == 0, ]
  tp <- sum(answered$is_true_positive, na.rm = TRUE)
  tn <- sum(answered$is_true_negative, na.rm = TRUE)
  fp <- sum(answered$is_false_positive, na.rm = TRUE)
  fn <- sum(answered$is_false_negative, na.rm = TRUE)
  precision <- if (tp + fp > 0) tp / (tp + fp) else NA_real_
  recall <- if (tp + fn > 0) tp / (tp + fn) else NA_real_
  data.frame(
    rows = nrow(results),
    errors = sum(results$error_occurred == 1),
    positive = sum(results$detected == 1, na.rm = TRUE),
    negative = sum(results$detected == 0, na.rm = TRUE),
    labelled = tp + tn + fp + fn,
    tp = tp, fp = fp, fn = fn, tn = tn,
    accuracy = if (tp + tn + fp + fn > 0) (tp + tn) / (tp + tn + fp + fn) else NA_real_,
    precision = precision,
    recall = recall,
    f1 = if (2 * tp + fp + fn > 0) 2 * tp / (2 * tp + fp + fn) else NA_real_,
    mean_confidence = if (nrow(answered)) mean(answered$confidence, na.rm = TRUE) else NA_real_,
    response_sec = sum(results$response_sec, na.rm = TRUE),
    tokens = sum(results$tokens_used, na.rm = TRUE)
  )
}
