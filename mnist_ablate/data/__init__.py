"""The images: `fetch` brings a data set to this machine, `load` opens it, `split` draws training and validation images.

`catalogue` lists the data sets, `images` holds their arrays, `files` reads them from the data folder, and `fetching`
brings them there. `own` keeps the arrays of a data set of the user's own.
"""

from mnist_ablate.data.catalogue import CLASS_NAMES, CLASSES, DATASETS, PIXELS, IdxFile, class_names
from mnist_ablate.data.fetching import Fetched, fetch
from mnist_ablate.data.files import data_folder, load
from mnist_ablate.data.images import MNIST, MOST_INPUTS, Images, Sizes, replace_labels, split, training_size
from mnist_ablate.data.own import is_kept, keep, kept_files, load_kept, receive

__all__ = [
    "CLASSES", "CLASS_NAMES", "DATASETS", "MNIST", "MOST_INPUTS", "PIXELS", "Fetched", "IdxFile", "Images", "Sizes",
    "class_names", "data_folder", "fetch", "is_kept", "keep", "kept_files", "load", "load_kept", "receive",
    "replace_labels", "split", "training_size",
]  # fmt: skip
