# Rscript list.R DATABASE: every experiment, as its own row tells of it.

source(file.path(dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE))), "database.R"))

write_table(read_table(
  "SELECT experiment_id, experiment_name, status, model_name, model_provider, temperature, prompt_version, run_seed,
          data_file, n_narratives_total, n_narratives_processed, n_narratives_skipped, start_time, end_time,
          total_runtime_sec, avg_time_per_narrative_sec, n_positive_detected, n_negative_detected, n_positive_manual,
          n_negative_manual, accuracy, precision_ipv, recall_ipv, f1_ipv, n_true_positive, n_false_positive,
          n_false_negative, n_true_negative, pct_overlap_with_manual, api_url, log_dir, created_at, notes
   FROM experiments ORDER BY created_at, experiment_id"
))
