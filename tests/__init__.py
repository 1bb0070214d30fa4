"""Tests: each name is a promise. Real Ray, the real demo models, real files and Delta tables; no timings.

| file | keeps promises about |
|---|---|
| test_actors.py | models without Ray: prompt and keyframe reach the pixels, bit for bit |
| test_animatediff.py | motion modules, motion LoRAs, few steps, IP-Adapters and long clips: as a plain call of diffusers, or one sentence |
| test_calibration.py | the stored evidence supports what docs/gates.md promises |
| test_care.py | care of a catalog: garbage, compacting, export; faults are told by every command, and work goes on |
| test_damage.py | each part of a catalog x each kind of damage: told, mended or said to be lost; the next render goes on |
| test_catalog.py | rows and media, whole or not at all, from many writers |
| test_certificates.py | every tensor has its place, and a take says what was loaded; no network is asked |
| test_check.py | what workflows load is whole, fits and is the same on every node, or is told before anything renders |
| test_choose.py | which work a device does next |
| test_commit.py | what a commit leaves in a table's folder, and what is done where its writer was killed |
| test_conform.py | what an editor changed is told per shot; the patch of the episode's file is exactly that cut |
| test_contact_sheet.py | every shot is on a page of the sheet, and no page of an earlier sheet is left |
| test_controls.py | pause and resume, priorities, cluster profiles |
| test_deploy.py | deployment files say what Ray and KubeRay understand, and open nothing to strangers |
| test_desk.py | the desk shows what the tables hold: boards, plans, frames, deliveries, whoever rendered and whatever is damaged |
| test_desk_events.py | a listener gets all that came, in order, whatever is cut, killed or tidied meanwhile |
| test_desk_on_ray.py | the desk on Ray Serve in a cluster is the same desk; killed parts come back, and its end takes nothing along |
| test_desk_survives.py | a killed service ends no render, and shows it again to everybody |
| test_docs.py | documents: commands parse, paths exist, settings and packages are all listed |
| test_doctor.py | `tower doctor` tells what can render here, and changes nothing |
| test_drive.py | how many shots live at once, what ends them, what runs beside them |
| test_drivers.py | two drivers on one episode: one renders, a dead one blocks nobody |
| test_durability.py | what a row promises is on the disk before the row counts, told by the kernel |
| test_evidence.py | evidence in numbers, and the decisions that cite it |
| test_faults.py | the whole path killed, interrupted, misled |
| test_finish.py | the third stage: from the clip, with its lineage, stale with it, resumed, and gone where no workflow is named |
| test_finish_gate.py | a finish that is not its clip, flickers or is no sharper than Lanczos is found |
| test_figures.py | a figure in a page stands beside the command that measured it, or is the code's |
| test_forks.py | `make mutants` asks the changed module, and not an older one |
| test_frames.py | single frames of a video, by their numbers, are those that a player shows |
| test_fuzz.py | no episode file, whatever is in it, gives a traceback |
| test_gate_files.py | `tower gate` on hostile and odd files |
| test_gate_tasks.py | what a gate's task stores and answers, without Ray |
| test_gates.py | planted faults found, good pictures let through |
| test_gpu_benchmark.py | the GPU benchmark runs on a bare machine, and a failing step loses nothing |
| test_guard.py | who may ask the desk for what: every route x every kind of stranger |
| test_hostile_requests.py | whatever strangers send the desk: one sentence, flat memory, nothing reached, others served meanwhile |
| test_imports.py | scripts, shot lists and storyboards become episode files: all that they say with its place, and a TODO for the rest |
| test_input.py | bad input is one sentence with its place |
| test_jobs.py | renders as jobs on a Ray cluster: submitted once, resumed, stopped |
| test_judges.py | learned judges measure, decide nothing, and say when they did not look |
| test_live.py | what a running render says of itself, to any process |
| test_loading.py | published layouts in miniature: loaded right, or refused in a sentence before anything renders |
| test_local_jobs.py | renders as processes of their own: they outlive who started them, and tell how they ended |
| test_lora_kinds.py | LoHa, LoKr, DoRA and others change a weight as their formula says, and go without a trace |
| test_ltx.py | LTX-Video as people hold it: files, noise, memory, keyframes |
| test_metrics.py | what Prometheus sees is right, and every chart has its series |
| test_models.py | what producers hold (checkpoints, LoRAs, motion modules and others) is told for what it is, from its header |
| test_migrations.py | old catalogs are upgraded, newer ones refused |
| test_openapi.py | no request along the desk's OpenAPI document is answered with a bug, and answers are as it says |
| test_operators.py | folders named like ours, secrets, clocks, proxies, signals, lost displays |
| test_movie.py | exact frames from clips of any size and rate; each part of the movie encoded once, and proven |
| test_nodes.py | machines that come, leave, differ and fall silent |
| test_page.py | the page: from a file to a movie, exact frames, every key, WCAG, cuts of the line |
| test_past.py | what a plan makes of earlier takes, which are told and not rendered |
| test_paths.py | names are names: no URLs, no markup, no protocols; what no longer belongs is removed |
| test_place.py | a file of a catalog is whole or not there, in a folder and in a bucket |
| test_plan.py | what is stale and why; a render does exactly that |
| test_pool.py | devices without models: order, batches, deaths |
| test_progress.py | what a person sees on a terminal and in a log |
| test_prompts.py | weights, embeddings, chunks and layers of CLIP, each against a reference by hand |
| test_provenance.py | pictures and movies say what made them; what people gave is not called generated |
| test_published.py | published layouts in miniature render what the demo's own folders render |
| test_pull.py | models from a hub: what was pinned, to the byte, whole or not at all |
| test_registry.py | versions never change, and evidence alone gives a status |
| test_rejudge.py | a changed threshold judges stored takes again, without media, models or Ray |
| test_render.py | the whole path |
| test_reviews.py | approve locks, pick chooses, retake sends back and may change what is made; a person's word beats a gate's |
| test_report.py | the report tells every take, in a page that loads and runs nothing |
| test_rules.py | measures become a verdict: thresholds, declarations, what was not looked for |
| test_sdxl.py | SDXL, other VAEs, v-prediction and the second pass are what diffusers makes of them |
| test_shared_weights.py | workflows of the same files share weights and draw what each draws alone |
| test_shot.py | which take follows which verdict |
| test_sound.py | a sound is at its sample, as long as the picture, as loud as asked, or a sentence of the plan |
| test_signature.py | movies are signed where a certificate is set; what cannot sign is told |
| test_stills.py | a still is what a viewer shows, and a bad one is told by the plan |
| test_storage.py | the catalog in a bucket, and in the hands of other readers |
| test_studio.py | what a take's row says, whatever became of the take |
| test_submit.py | what `tower submit` checks, sends and calls a job |
| test_subtitles.py | what is said is shown when it is said, in every language: files, a track, the picture |
| test_timeline.py | an episode in an editor's hands: every clip where the movie has it, in files that their readers open |
| test_titles.py | titles and the sheet's words in every language, or one sentence of the plan |
| test_training.py | the demo's checkpoints are trained by one command, on a bare machine and in time |
| test_upscaler.py | clips made larger: tile by tile without seams, exact sizes, or one sentence before anything renders |
| test_yaml.py | what was written in YAML or JSON is what is read |

What they share: conftest.py (the demo episode, one render that many look at), cuts.py (clips of episodes, without models), planted.py (faults), published.py (published layouts), service.py (the desk, in this process or served), sounds.py (sound files), tiny_xl.py (SDXL with few weights), bare.py (a machine without Ray), browser.py (a browser before the desk).
"""
