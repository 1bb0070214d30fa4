"""Tests: each name is a promise. Real Ray, the real demo models, real files and Delta tables; no timings.

| file | keeps promises about |
|---|---|
| test_gates.py | planted faults found, good pictures let through |
| test_actors.py | models without Ray: prompt and keyframe reach the pixels, bit for bit |
| test_pool.py | devices without models: order, batches, deaths |
| test_catalog.py | rows and media, whole or not at all |
| test_shot.py | which take follows which verdict |
| test_assemble.py | exact frames from any clips |
| test_input.py | bad input is one sentence |
| test_nodes.py | machines that come, leave, differ and fall silent |
| test_gpu_benchmark.py, test_training.py | what is made for a rented GPU runs on a bare machine |
| test_render.py | the whole path |
| test_faults.py | the whole path killed, interrupted, misled |
"""
