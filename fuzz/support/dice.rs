//! A small generator: behaviours follow from the input alone. Use it as `#[path = "../support/dice.rs"] mod dice;`.

pub struct Dice(pub u32);

impl Dice {
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as usize % sides
    }
}
