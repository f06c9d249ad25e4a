"""Faults in what keeps data, runs and records right."""

DATA = [
    ("bn/data.py", "            if found != expected:", "            if len(content) == 0:", "an altered file is used"),
    ("bn/data.py", "    if len(raw) - start != math.prod(shape):", "    if len(raw) - start < math.prod(shape):", "bytes after the last are ignored"),
    ("bn/data.py", '    if len(raw) < 4 or raw[:3] != b"\\0\\0\\x08":', "    if len(raw) < 4:", "any IDX type is read as bytes"),
    ("bn/data.py", "np.float32(255)", "np.float32(256)", "the pixels are divided by 256"),
    ("bn/data.py", "stratify=labels", "stratify=None", "the split is not stratified"),
    ("bn/data.py", "random_state=0", "random_state=None", "the split is another each time"),
    ("bn/data.py", '    if "BN_DATA_DIR" not in os.environ:\n        _download', "    if True:\n        _download", "a folder of one's own is downloaded into"),
    ("bn/data.py", '        sha.update(f"{name} {array.dtype.str} {array.shape}\\n".encode())\n', "", "the digest does not see shapes"),
    ("bn/data.py", "        return  # no write, so a read-only cache that is complete will do", "        path.joinpath('used').touch()\n        return", "a read-only cache is written to"),
    ("bn/data.py", "            except (requests.RequestException, ValueError) as error:", "            except requests.RequestException as error:", "a mirror with another file ends the search"),
]
ENGINE = [
    ("bn/checkpoint.py", "        os.replace(temporary, path)", "        path.write_bytes(content)", "a file is written in place"),
    ("bn/checkpoint.py", "            file.flush()\n            os.fsync(file.fileno())\n", "", "a file is not forced to the disk"),
    ("bn/checkpoint.py", '        optimizer.load_state_dict(state["optimizer"])\n', "", "resuming forgets the momentum"),
    ("bn/checkpoint.py", "    except OSError as error:\n        Path(temporary).unlink(missing_ok=True)\n", "    except OSError as error:\n", "a full disk leaves a temporary file"),
    ("bn/experiments/_engine.py", "    key = hashlib.sha256(json.dumps([identity, versions()]).encode()).hexdigest()[:12]", "    key = 'units'", "runs of different code share their units"),
    ("bn/experiments/_engine.py", "[identity, versions()]", "[identity]", "runs of different versions share their units"),
    ("bn/experiments/_engine.py", "            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)", "            pass", "two runs work on the same units"),
    ("bn/experiments/_engine.py", "        torch.set_num_threads(1)  # more would change the order of the sums", "        pass", "threads change the last digits"),
    ("bn/experiments/_engine.py", "                if len(rows) > len(unit[\"epochs\"]):", "                if True:", "resuming writes what it knows again"),
    ("bn/experiments/_engine.py", "    return tuple(sorted(set(seeds)))", "    return tuple(seeds)", "a seed named twice is trained twice"),
    ("bn/experiments/_engine.py", "isinstance(s, bool) or ", "", "True passes for seed 1"),
    ("bn/experiments/_engine.py", "    if stamp and not differences:", "    if stamp:", "a record that is not reproduced is stamped"),
    ("bn/experiments/_engine.py", "                if old.get(metric) != new.get(metric)\n", "                if old.get(metric) != old.get(metric)\n", "verify compares a record with itself"),
    ("bn/experiments/_engine.py", "        if all(_epochs(job.path(params, seed)) == epochs for params in grid)", "        if True", "a record holds seeds that are not finished"),
    ("bn/experiments/_engine.py", "            half_written.unlink()", "            pass", "half-written files stay"),
    ("bn/experiments/_engine.py", 'sources = [(PACKAGE / name).read_text(encoding="utf-8") for name in ("models.py", "train.py")]', "sources = []", "the hash does not see the networks"),
]
RESULTS = [
    ("bn/results/__init__.py", "    if schema != SCHEMA:", "    if False:", "a record of another schema is read"),
    ("bn/results/__init__.py", "    return curves(record, metric, **params)[:, -1]", "    return curves(record, metric, **params)[:, -2]", "the last epoch but one is called final"),
    ("bn/results/__init__.py", '    return np.array([chosen[seed] for seed in record["seeds"]], dtype=np.float64)', "    return np.array(list(chosen.values()), dtype=np.float64)", "curves come in the order of the units"),
    ("bn/results/__init__.py", "{k: math.nan if v is None else v for k, v in row.items()}", "dict(row)", "a diverged loss is None"),
    ("bn/cli.py", "        return INTERRUPTED\n    name", "        return 0\n    name", "an interrupted run reports success"),
    ("bn/cli.py", "range(int(first), int(last or first) + 1)", "range(int(first), int(last or first))", "0-4 leaves out seed 4"),
    ("bn/cli.py", "        if options.quick:\n            raise", "        if False:\n            raise", "a quick run becomes a record"),
]
TRAIN = [
    ("bn/train.py", "np.random.default_rng((seed, epoch))", "np.random.default_rng(seed)", "every epoch has the same order"),
    ("bn/train.py", "    model.train()\n    with torch.random", "    model.eval()\n    with torch.random", "training in evaluation mode"),
    ("bn/train.py", "            if len(batch) == 1 < batch_size:\n                continue\n", "", "a last batch of one is trained on"),
    ("bn/train.py", "            optimizer.zero_grad()\n", "", "gradients add up over steps"),
    ("bn/train.py", "        model.train(training)", "        model.train()", "evaluation leaves training mode on"),
    ("bn/train.py", "    model.eval()\n    try:", "    try:", "evaluation uses the batch's statistics"),
    ("bn/train.py", "        for handle in handles:\n            handle.remove()", "        pass", "hooks stay on the model"),
    ("bn/train.py", "momentum=momentum, weight_decay=weight_decay", "momentum=momentum", "weight decay is dropped"),
    ("bn/train.py", "(x[:measure], y[:measure])", "(x, y)", "the training loss is measured on all data"),
]
ALL = [
    (DATA, ["tests/test_data.py"]),
    (ENGINE, ["tests/test_experiments.py", "tests/test_train.py", "-k", "not killed"]),
    (RESULTS, ["tests/test_results.py", "tests/test_cli.py", "tests/test_experiments.py"]),
    (TRAIN, ["tests/test_train.py"]),
]
