"""Time and power of training on old and new cards, as measured: rows of facts.

Source: Zeus (You, Chung and Chowdhury, NSDI 2023), github.com/ml-energy/zeus 75a8b93,
trace/summary_power_*.csv (Apache-2.0). Of the runs at the card's full power limit
the batch size that used the least energy an epoch.
Columns: workload, GPU, seconds an epoch, mean watts, batch size.
"""

SOURCE = "measured by Zeus (NSDI 2023), full power limit, the batch size of least energy"

EPOCHS: tuple[tuple[str, str, float, float, int], ...] = (
    ("ShuffleNet", "P100", 16.64, 133.7, 2048),
    ("ShuffleNet", "V100", 7.69, 178.8, 2048),
    ("ShuffleNet", "Quadro RTX 6000", 9.68, 219, 2048),
    ("ShuffleNet", "A40", 8.66, 213.9, 2048),
    ("ResNet-50", "P100", 6278, 165.5, 128),
    ("ResNet-50", "V100", 3519, 217.5, 360),
    ("ResNet-50", "Quadro RTX 6000", 4992, 231.1, 64),
    ("ResNet-50", "A40", 3847, 235.2, 256),
    ("DeepSpeech2", "P100", 1.889e04, 134.9, 64),
    ("DeepSpeech2", "V100", 5711, 167.2, 128),
    ("DeepSpeech2", "Quadro RTX 6000", 5929, 177.3, 48),
    ("DeepSpeech2", "A40", 4995, 177.1, 64),
    ("NCF", "P100", 11.82, 33.66, 16384),
    ("NCF", "V100", 7.093, 36.22, 16384),
    ("NCF", "Quadro RTX 6000", 11.96, 55.38, 16384),
    ("NCF", "A40", 8.342, 82.52, 32768),
    ("BERT (SQuAD)", "P100", 2805, 166.4, 4),
    ("BERT (SQuAD)", "V100", 1573, 224.8, 8),
    ("BERT (SQuAD)", "Quadro RTX 6000", 1704, 234, 8),
    ("BERT (SQuAD)", "A40", 909.5, 267, 32),
    ("BERT (sentiment)", "P100", 7270, 168.4, 64),
    ("BERT (sentiment)", "V100", 4028, 220.5, 64),
    ("BERT (sentiment)", "Quadro RTX 6000", 4233, 249.4, 128),
    ("BERT (sentiment)", "A40", 1962, 273.1, 256),
)
