// Plays up to two takes as one: one frame number, one speed, and while paused exactly that frame.

const CONFIRM = 150; // ms that a <video> may take, after a seek, to say which frame it shows
const GIVE_UP = 600; // ms that the seek itself may take, before the frame's picture is laid over the video
const SPEEDS = [-4, -2, -1, -0.5, 0.5, 1, 2, 4];
const APART = 1.5; // frames by which the second video may differ before it is set right

export class Deck {
  // `changed` is called whenever `frame`, `plays`, `speed` or `covers` changed.
  constructor(changed) {
    this.changed = changed;
    this.sides = {}; // A and B: {take, video, wanted, timer}
    this.frame = 0; // of the leading side
    this.plays = false;
    this.speed = 1;
    this.covers = { A: null, B: null }; // a frame that its picture must be laid over the video for, because the video shows another
  }

  // The side whose frames are counted: A, or B where A is a still.
  get lead() {
    const { A, B } = this.sides;
    return A && A.take.frames > 1 ? A : B && B.take.frames > 1 ? B : (A ?? B);
  }

  get frames() {
    return this.lead?.take.frames ?? 1;
  }

  get fps() {
    return this.lead?.take.fps ?? 24;
  }

  // The frame that a side shows when the leading one shows `frame`: the same moment, as rates may differ.
  frameOf(side, frame = this.frame) {
    const { take } = side;
    if (take.frames === 1) return 0;
    return Math.min(take.frames - 1, Math.floor(((frame + 0.5) / this.fps) * take.fps));
  }

  put(name, take, video) {
    this.drop(name);
    if (take) {
      const side = { name, take, video, wanted: 0 };
      this.sides[name] = side;
      if (video) {
        side.watch = video.requestVideoFrameCallback(function seen(_, told) {
          side.onFrame(told);
          side.watch = video.requestVideoFrameCallback(seen);
        });
        side.onFrame = (told) => this.#shown(side, Math.round(told.mediaTime * take.fps));
        side.onSeeked = () => this.#confirm(side);
        side.onEnded = () => this.#ended(side);
        video.addEventListener("seeked", side.onSeeked);
        video.addEventListener("ended", side.onEnded);
      }
    }
    this.plays = false;
    this.each((side) => side.video?.pause());
    this.seek(Math.min(this.frame, this.frames - 1));
  }

  drop(name) {
    const side = this.sides[name];
    if (side?.video) {
      side.video.cancelVideoFrameCallback(side.watch);
      side.video.removeEventListener("seeked", side.onSeeked);
      side.video.removeEventListener("ended", side.onEnded);
      clearTimeout(side.timer);
    }
    delete this.sides[name];
  }

  leave() {
    clearInterval(this.back);
    Object.keys(this.sides).forEach((name) => this.drop(name));
  }

  each(work) {
    Object.values(this.sides).forEach(work);
  }

  // Show exactly this frame. While a seek is under way the newest wish waits for it, so that a held key does not pile up seeks.
  seek(frame) {
    this.frame = Math.max(0, Math.min(this.frames - 1, frame));
    this.each((side) => {
      if (!side.video) return;
      side.wanted = this.frameOf(side);
      if (!side.video.seeking) this.#to(side);
    });
    this.changed();
  }

  // Show this frame of one side, which may have another rate than the leading one.
  show(name, frame) {
    const { take } = this.sides[name];
    this.stop();
    this.seek(take.fps ? Math.floor(((frame + 0.5) / take.fps) * this.fps) : frame);
  }

  step(by) {
    this.stop();
    this.seek(this.frame + by);
  }

  play(speed = 1) {
    if (this.frames === 1) return;
    clearInterval(this.back);
    this.speed = speed;
    this.plays = true;
    this.covers = { A: null, B: null };
    if (speed > 0) {
      if (this.frame >= this.frames - 1) this.seek(0);
      this.each(({ video }) => {
        if (!video) return;
        video.playbackRate = speed;
        video.play().catch(() => {});
      });
    } else {
      this.each(({ video }) => video?.pause());
      this.back = setInterval(() => this.seek(this.frame > 0 ? this.frame - 1 : this.frames - 1), 1000 / (this.fps * -speed));
    }
    this.changed();
  }

  stop() {
    if (!this.plays) return;
    clearInterval(this.back);
    this.plays = false;
    this.each(({ video }) => video?.pause());
    this.seek(this.frame);
  }

  toggle() {
    if (this.plays) this.stop();
    else this.play(1);
  }

  // One step on the ladder of speeds; from a stop, forward or backward at the plain speed.
  faster(by) {
    if (!this.plays) return this.play(by);
    this.play(SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, SPEEDS.indexOf(this.speed) + by))]);
  }

  #to(side) {
    side.seekedTo = side.wanted;
    side.video.currentTime = (side.wanted + 0.5) / side.take.fps;
    this.#expect(side, GIVE_UP);
  }

  #shown(side, frame) {
    side.shows = frame;
    if (!this.plays) return this.#cover(side, frame === side.wanted ? null : side.wanted);
    if (this.speed < 0) return;
    if (side === this.lead) {
      this.frame = Math.min(frame, this.frames - 1);
      this.changed();
    } else if (this.lead.video && Math.abs(frame - this.frameOf(side)) > APART * Math.max(1, this.speed)) {
      side.video.currentTime = (this.frameOf(side) + 0.5) / side.take.fps;
    }
  }

  #confirm(side) {
    if (side.seekedTo !== side.wanted && !(this.plays && this.speed > 0)) return this.#to(side);
    this.#expect(side, CONFIRM);
  }

  #expect(side, within) {
    clearTimeout(side.timer);
    side.timer = setTimeout(() => !this.plays && side.shows !== side.wanted && this.#cover(side, side.wanted), within);
  }

  #cover(side, frame) {
    if (this.covers[side.name] === frame) return;
    this.covers = { ...this.covers, [side.name]: frame };
    this.changed();
  }

  #ended(side) {
    if (!this.plays || this.speed < 0 || side !== this.lead) return;
    this.seek(0);
    this.play(this.speed);
  }
}
