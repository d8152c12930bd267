# Reads every file of an export as its users would, and prints what it found as one JSON object:
# format -> names, labels of the columns, labels of the values, and the cells as texts (NA where there is nothing).
#
# Rscript read_exports.R DIRECTORY EXPERIMENT_ID

arguments <- commandArgs(trailingOnly = TRUE)
path <- function(suffix) file.path(arguments[1], paste0(arguments[2], suffix))

# As many digits as tell one double from its neighbours; an empty text is nothing, as in most of the formats.
as_text <- function(column) {
  if (is.list(column)) {
    column <- vapply(column, function(one) if (length(one)) toString(one) else NA_character_, "")
  }
  if (is.numeric(column)) {
    text <- vapply(unclass(column), function(one) if (is.na(one)) NA_character_ else sprintf("%.17g", one), "")
  } else {
    text <- as.character(column)
  }
  ifelse(is.na(text) | text == "", NA_character_, text)
}

described <- function(table) {
  label_of <- function(column) {
    label <- attr(column, "label", exact = TRUE)
    if (is.null(label)) "" else label
  }
  values_of <- function(column) {
    labels <- attr(column, "labels", exact = TRUE)
    if (is.null(labels)) NULL else as.list(setNames(names(labels), as.character(unname(labels))))
  }
  list(
    names = I(names(table)),
    labels = lapply(as.list(table), label_of),
    values = Filter(Negate(is.null), lapply(as.list(table), values_of)),
    cells = lapply(as.list(table), function(column) I(unname(as_text(column))))
  )
}

found <- list(
  csv = described(read.csv(path(".csv"), colClasses = "character", encoding = "UTF-8", na.strings = "")),
  json = described(jsonlite::fromJSON(path(".json"))$results),
  jsonl = described(jsonlite::stream_in(file(path(".jsonl")), verbose = FALSE)),
  xlsx = described(suppressMessages(readxl::read_excel(path(".xlsx"), col_types = "text", trim_ws = FALSE))),
  dta = described(haven::read_dta(path(".dta"))),
  sav = described(haven::read_sav(path(".sav"))),
  xpt = described(haven::read_xpt(path(".xpt")))
)
codebook <- read.csv(path(".codebook.csv"), colClasses = "character", encoding = "UTF-8")
found$codebook <- list(name = I(codebook$name), label = I(codebook$label), values = I(codebook$values))
packages <- vapply(c("haven", "readxl", "jsonlite"), function(one) as.character(packageVersion(one)), "")
found$versions <- as.list(c(R = as.character(getRversion()), packages))
cat(jsonlite::toJSON(found, auto_unbox = TRUE, na = "null", null = "null", digits = NA))
