# Rscript numbers.R: how R writes numbers as texts, one a line: the number in all its digits, a blank, what R makes of it.

significands <- c(1:99, 101, 1234, 56789, 123456789)
numbers <- unlist(lapply(significands, function(one) one * 10^(0:14)))
numbers <- sort(unique(c(numbers[numbers < 1e15], 99999, 100001, 999999, 123456789012345, 999999999999999)))
cat(paste(sprintf("%.0f", numbers), as.character(numbers)), sep = "\n")
